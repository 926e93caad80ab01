"""Images with masks: one class a pixel. Listing, decoding once, drawing crops, and building smaller sets of them."""
