"""Assessment: agreement with intervals, calibration, out-of-distribution scores, area estimates, reports.

Nothing here imports torch; matplotlib and Jinja2 are imported only when a picture or a page is written.
"""
