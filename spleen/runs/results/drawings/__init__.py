"""The drawings of the study page: what stands where, in SVG units, without markup."""
