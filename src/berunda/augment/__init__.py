"""Views of images for any number of bands: geometry, photometry, mixing."""
