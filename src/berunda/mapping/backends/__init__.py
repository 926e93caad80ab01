"""Where tiles are made: in this process (`local`)."""
