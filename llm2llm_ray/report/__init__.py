"""The HTML report of a run, or of a study (study_page.py): one self-contained file that asks no network for anything.

Everything shown is read through `RunRecord`; a run that is unfinished, or has no exams, is reported as far as it got, and the
page says so. Teacher and student text is untrusted: jinja2 escapes it in the page, `tojson` in the explorer's data, and a
content security policy lets only the page's own script run.
"""

from llm2llm_ray.report.page import render, write_report
from llm2llm_ray.report.study_page import render_study, write_study_page

__all__ = ["render", "render_study", "write_report", "write_study_page"]
