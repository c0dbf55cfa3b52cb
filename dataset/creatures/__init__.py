"""A generated world of imaginary animals: three small datasets that need no download.

``views`` registers the datasets; ``world`` defines kinds, traits, places and things; ``drawing``,
``backdrop`` and ``scenes`` draw them; ``captions`` describes them; ``store`` generates and caches
all rows.
"""
