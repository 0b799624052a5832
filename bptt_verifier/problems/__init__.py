"""Problems: the arguments at which gradients are compared, and how they are drawn."""
