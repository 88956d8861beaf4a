"""Settings, and the options made of them."""
