"""References: the true gradients of a case, by autodiff, and independent checks of them."""
