"""Pages to show: one HTML file each, which opens by double click and makes no request."""
