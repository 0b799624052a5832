"""Problems: the arguments at which gradients are compared, and functions that draw them."""
