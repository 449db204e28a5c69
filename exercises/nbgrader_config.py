"""Settings of the course folder that `make assignments` writes; nbgrader reads them there."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "regularization"
c.ClearSolutions.code_stub = {
    "python": 'raise NotImplementedError("your code is missing: replace this line")'
}
c.ClearSolutions.text_stub = "*Your answer goes here: replace this line.*"
c.OverwriteCells.add_missing_cells = True  # tests that a student deleted come back
c.Execute.timeout = 60  # seconds of a cell
c.HTMLExporter.sanitize_html = True  # no script of a student runs in a feedback page
