"""The page: a search in the browser.

answers     a request, as it stands in the page's address, to what is shown
gallery     what is shown as HTML; `hits.html` is its template
thumbnails  small copies of indexed images, made once
guard       which requests are let in
app         the layout in Gradio, and the routes beside it
"""
