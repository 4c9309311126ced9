"""The live page, the HTTP API and the metrics of a box.

    from edgeward.web.server import WebServer

    with WebServer(box, port=8080) as server:
        print(server.url)

Nothing here decides or changes anything: it shows what a `BoxView` reports. `edgeward.web.app`
makes the application, `edgeward.web.server` runs it in a thread; both need the extra `[web]`.
"""
