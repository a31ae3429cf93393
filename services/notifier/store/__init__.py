"""The statements of the notifier: `leads`, `deliveries`, and `queue`: how deliveries are taken and given back."""
