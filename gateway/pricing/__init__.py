"""What an exchange costs: prices from the operator, a file or genai-prices. ``prices.Prices`` is the way in."""
