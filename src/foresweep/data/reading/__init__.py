"""Any file of prices, read into raw bars."""
