"""Nets and what surrounds them: encoders, decoders, averaged teachers."""
