"""A real catalogue that ships with the package: the products of a gift retailer, see ATTRIBUTION.txt."""
