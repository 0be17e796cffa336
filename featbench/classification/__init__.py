"""The contract of classifiers, and the solvers behind them."""
