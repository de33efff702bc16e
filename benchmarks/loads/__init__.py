"""The loads, one module each. Every load checks that all arrived before it says how long it took."""
