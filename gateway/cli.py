"""The ``gateway`` command."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import key_commands, usage
from gateway.errors import ConfigError, GatewayError


class Formatter(logging.Formatter):
    """Says where an exception came from and what it is, not what it says: that may quote a prompt or a key."""

    def formatException(self, ei: Any) -> str:
        lines: list[str] = []
        error: BaseException | None = ei[1]
        seen = set[int]()
        while error is not None and id(error) not in seen:  # causes may run in a circle
            seen.add(id(error))
            trace = "".join(traceback.format_tb(error.__traceback__))
            lines.insert(0, f"Traceback (most recent call last):\n{trace}{type(error).__name__}")
            error = error.__cause__ or error.__context__
        return "\n\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; the exit status."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    parser, commands = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and not given[0].startswith("-") and given[0] not in commands.choices:
            given = _add_commands_of_plugins(commands, given)
        chosen = parser.parse_args(given)
        return int(chosen.run(chosen))
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 1
    except GatewayError as error:
        print(error.message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1


def _parser() -> tuple[argparse.ArgumentParser, Any]:
    parser = argparse.ArgumentParser(prog="gateway", description="Hookgate, the LLM gateway.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        _add_config(command)
        return command

    serve = add("serve", _serve, "Run the gateway.")
    serve.add_argument("--host", help="instead of [server] host")
    serve.add_argument("--port", type=int, help="instead of [server] port; 0 takes a free one")
    serve.add_argument("--workers", type=int, help="instead of [server] workers")
    again = add(
        "reload", _reload, "Let the running gateway take the configuration as it is now: exit 0, or 1 with why not."
    )
    again.add_argument("--workers", type=int, help="as serve was given it")
    add("check", _check, "Check the configuration: exit 0, or 1 with every problem as FILE:LINE: message.")
    explain = add("explain", _explain, "Explain where a request for a model goes, and why: exit 1 if it is refused.")
    explain.add_argument("--key", metavar="NAME", help="name of the virtual key; left out where the gateway is open")
    explain.add_argument("--model", metavar="M", required=True, help="name of the model, as clients send it")
    explain.add_argument(
        "--live", action="store_true", help="ask the providers for their models and the running gateway"
    )
    explain.add_argument("--json", action="store_true", help="for machines")
    add("models", _models, "List the models clients can name now.")
    add("plugins", _plugins, "List the loaded plugins: name, kind, place in the chain, hooks, file.")
    usage.add_arguments(
        add("usage", usage.run, "Add up what the ledger says was used: by whom, of what, and what it cost.")
    )
    _add_imports(commands)
    key_commands.add(commands, _add_config)
    return parser, commands


def _add_imports(commands: Any) -> None:
    kinds = commands.add_parser("import", help="Write a gateway.toml from another gateway's configuration.")
    kinds = kinds.add_subparsers(required=True, metavar="KIND", dest="kind")
    for kind, text in (("litellm", "LiteLLM's config.yaml."), ("router", "The earlier router's providers.yaml.")):
        parser = kinds.add_parser(kind, help=text, description=f"{text} What does not carry over is told on stderr.")
        parser.add_argument("file", type=Path, metavar="FILE", help="what to import")
        parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="written with mode 0600; default: stdout")
        parser.add_argument("--force", action="store_true", help="replace the file of -o if there is one")
        parser.set_defaults(run=_import)


def _import(chosen: argparse.Namespace) -> int:
    from gateway.importing.command import run

    return run(chosen, os.environ)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("gateway.toml"), help="default: %(default)s")


def _add_commands_of_plugins(commands: Any, given: list[str]) -> list[str]:
    """Let the configured plugins add theirs; the arguments without ``--config``, which is then read."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_config(early)
    known, rest = early.parse_known_args(given)

    async def add(loaded: Any, document: Any) -> int:
        document.raise_problems()
        loaded.manager.hook.commands(cli=commands)
        return 0

    if known.config.is_file():
        _with_plugins(known.config, add)
    return rest


def _serve(chosen: argparse.Namespace) -> int:
    from gateway import config

    overrides = {name: value for name in ("host", "port", "workers") if (value := getattr(chosen, name)) is not None}
    settings, document = config.load(chosen.config, os.environ, overrides)
    if _lacks_gunicorn(settings):
        return 1
    if settings.server.workers > 1:
        from gateway.workers import Workers

        document.raise_problems()
        Workers(settings, chosen.config, os.environ, overrides).run()
        return 0
    import uvloop

    from gateway.server import serve

    uvloop.run(serve(chosen.config, os.environ, overrides))
    return 0


def _lacks_gunicorn(settings: Any) -> bool:
    """Tell what to install for the workers that are configured."""
    if settings.server.workers == 1 or importlib.util.find_spec("gunicorn") is not None:
        return False
    print("[server] workers > 1 need gunicorn: pip install 'hookgate[workers]'", file=sys.stderr)
    return True


def _reload(chosen: argparse.Namespace) -> int:
    """Ask every worker: each has an admin listener of its own."""
    from gateway import config

    overrides = {} if chosen.workers is None else {"workers": chosen.workers}
    # Problems in the file are the running gateway's to tell; where it listens can be read in any case.
    settings, _ = config.load(chosen.config, os.environ, overrides)
    admin = settings.admin
    if not admin.enabled or not admin.port:
        print("The admin listener is off or has no fixed port; send SIGHUP to the gateway instead.", file=sys.stderr)
        return 1
    outcomes = [_reload_one(admin.host, admin.port + number) for number in range(settings.server.workers)]
    problems = dict.fromkeys(line for lines in outcomes for line in lines)
    print("\n".join(problems) or "reloaded", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def _reload_one(host: str, port: int) -> list[str]:
    """Problems; none means reloaded."""
    import http.client

    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(address, port, timeout=120)
    try:
        connection.request("POST", "/reload", headers={"Content-Length": "0"})
        with connection.getresponse() as answer:
            told = json.loads(answer.read())
            return [] if answer.status == 200 else [str(problem) for problem in told["problems"]]
    except OSError as error:
        return [f"no gateway answers at the admin listener {address}:{port}: {error.strerror or error}"]
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        return [f"what answers at the admin listener {address}:{port} is no gateway"]
    finally:
        connection.close()


def _check(chosen: argparse.Namespace) -> int:
    from gateway import key_acts

    async def report(loaded: Any, document: Any) -> int:
        await key_acts.warn(loaded.runtime.config, document)
        for warning in document.warnings:
            print(f"warning: {warning}")
        document.raise_problems()
        if _lacks_gunicorn(loaded.runtime.config):
            return 1
        print(f"{chosen.config}: no problems")
        return 0

    return _with_plugins(chosen.config, report)


def _plugins(chosen: argparse.Namespace) -> int:
    async def report(loaded: Any, document: Any) -> int:
        document.raise_problems()
        place = 0
        for item in loaded.loaded:
            position = "-"
            if item.kind == "middleware":
                place += 1
                position = str(place)
            print(f"{item.name:<16} {item.kind:<11} {position:>3}  {', '.join(item.hooks):<40}  {item.file}")
        return 0

    return _with_plugins(chosen.config, report)


def _models(chosen: argparse.Namespace) -> int:
    async def report(loaded: Any, document: Any) -> int:
        from gateway.routing import Router

        document.raise_problems()
        router = Router(loaded.runtime.config, loaded)
        for name in router.names:
            print(f"{name:<48} configured")
        for provider, models in (await router.catalog.models()).items():
            for model in models:
                print(f"{model['id']:<48} {provider}")
        await router.catalog.close()
        return 0

    return _with_plugins(chosen.config, report)


def _explain(chosen: argparse.Namespace) -> int:
    async def report(loaded: Any, document: Any) -> int:
        from attrs import asdict

        from gateway import key_acts, live
        from gateway.explain import Explainer
        from gateway.explain_text import text
        from gateway.routing import Router

        document.raise_problems()
        await key_acts.add_stored(loaded.runtime.config, document, chosen.key)
        url = live.address(loaded.runtime.config.admin)
        told = None
        try:
            told = await live.ask(loaded.runtime.upstream, url) if url else None
        except (OSError, ValueError) as error:
            if chosen.live:
                print(f"no running gateway at {url}: {error}", file=sys.stderr)
        router = Router(loaded.runtime.config, loaded)
        try:
            explainer = Explainer(document, loaded, router, told, url if told else None)
            found = await explainer.explain(chosen.key, chosen.model, ask=chosen.live)
        finally:
            await router.catalog.close()
        print(json.dumps(asdict(found)) if chosen.json else text(found))
        return 1 if found.answer == "refused" else 0

    return _with_plugins(chosen.config, report)


def _with_plugins(path: Path, report: Callable[[Any, Any], Awaitable[int]]) -> int:
    """Load configuration and plugins as ``serve`` does, without listening, and report on them."""

    async def run() -> int:
        from gateway import config, plugins
        from gateway.upstream import Upstream

        settings, document = config.load(path, os.environ)
        upstream = Upstream(settings.pool)
        try:
            runtime = plugins.Runtime(settings, upstream, folder=path.parent)
            return await report(plugins.load(settings, document, runtime), document)
        finally:
            await upstream.close()

    return asyncio.run(run())
