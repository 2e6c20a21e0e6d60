"""The kit for tables, figures and pages; knows no domain."""
