// Package python runs the tests of sdk/python, the verifier for Python, in a virtual environment
// of its own: pytest, with all test vectors of testdata/verifier, and mypy.
package python
