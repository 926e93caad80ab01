"""What training eats: scenes cut into images, splits, scaling, and made-up or fetched data."""
