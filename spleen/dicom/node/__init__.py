"""A node in a DICOM network: receives series by C-STORE, segments them, and sends the results by C-STORE.

`server` runs the parts: `receiver` writes what arrives into the on-disk `queue`, `prediction` segments what is there in
a process of its own, `sender` delivers the results. `settings` is what the user configures, `status` what is shown.
"""
