"""The textbook proxy: read the body, ``session.post``, return. What a tutorial shows, on uvloop, no access log."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)
MAX_BODY = 64 * 1024 * 1024


async def session(app: web.Application) -> AsyncIterator[None]:
    # aiohttp's default limit of 100 connections would make the thousand open streams wait.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as app[SESSION]:
        yield


async def proxy(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    headers = {"Content-Type": request.content_type}
    async with request.app[SESSION].post(request.app[UPSTREAM] + request.path, data=body, headers=headers) as answer:
        if answer.content_type != "text/event-stream":
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        out = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        async for chunk in answer.content.iter_any():
            await out.write(chunk)
        await out.write_eof()
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description="the proxy the gateway is compared with")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="http://127.0.0.1:PORT")
    options = parser.parse_args()
    app = web.Application(client_max_size=MAX_BODY)
    app[UPSTREAM] = options.upstream
    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", proxy)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
