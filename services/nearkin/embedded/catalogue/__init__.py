"""Real data that ships with the package: the products and invoices of a gift retailer, see ATTRIBUTION.txt."""
