"""A generated world of imaginary animals: three small datasets that need no download.

``views`` registers the datasets; ``world`` says what kinds, traits, places and things there are;
``drawing``, ``backdrop`` and ``scenes`` draw them; ``captions`` describes them; ``store`` generates
all rows and keeps them.
"""
