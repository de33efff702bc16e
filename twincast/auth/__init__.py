"""Credentials: which are good, and who stands behind them. What that one may do is decided in core/rights."""
