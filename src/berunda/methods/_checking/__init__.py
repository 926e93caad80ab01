"""The checks behind `berunda.methods.check`, and the small world in which they try a method."""
