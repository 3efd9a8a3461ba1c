"""Runs with real identity providers, outside of CI: `make providers`.

They need what the machine may not have (Java 17 and Maven, Node.js and npm) and download some 150
MB. No file is named like a test, so that a plain pytest passes them by.
"""
