"""Networks over entity sets, flat vectors and images, and the diffusion of them."""
