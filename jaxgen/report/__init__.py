"""One page that says which kind of model to choose."""

from jaxgen.report.page import render as render
from jaxgen.report.verdict import sentence as sentence
