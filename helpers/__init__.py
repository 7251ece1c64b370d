"""Helpers of the scaling-law workbook: small modules behind the notebooks."""
