"""The floor under any aiohttp server: it reads the body and returns a fixed answer, without an upstream."""

from __future__ import annotations

import argparse

import uvloop
from aiohttp import web

from bench import messages

MAX_BODY = 64 * 1024 * 1024


async def answer(request: web.Request) -> web.Response:
    body = await request.read()
    reply = messages.size_reply(len(body)) if len(body) > messages.SMALL else messages.chat_reply()
    return web.Response(body=reply, content_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(description="aiohttp server alone")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/{path:.*}", answer)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
