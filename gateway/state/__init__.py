"""What outlives one exchange: the response cache, counters, ledgers."""
