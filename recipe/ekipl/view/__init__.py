"""The viewer: what runs and evaluations left behind, in a browser.

Python reads folders and answers in JSON (Starlette on loopback); the page is Preact with htm, and uPlot for the curves.
Why these: Preact makes text nodes and nothing else from a string, so that expert text is inert by construction; all four
files together are 70 kB, MIT and Apache-2.0, need no build step, and lie in page/vendor with their versions and digests,
so that nothing is fetched when the page is opened. Pages made on the server would have needed a round trip for each
filter, and could not have become one file: `--export` writes the same page with the answers of the same functions in it.
"""
