"""Every parser of what comes from outside, held against what it promises: see docs/fuzzing.md."""
