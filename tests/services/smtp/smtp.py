"""A mail server for tests: Debian's python3-aiosmtpd, with STARTTLS and a throw-away certificate.

Lines of JSON on stdout say what happened; it begins with {"port": N}. The arguments are: key,
certificate, and whether STARTTLS is offered (starttls or plain). Lines on stdin:
  answer ok|refuse|stall    how messages are answered
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def say(event):
    print(json.dumps(event), flush=True)


class Handler:
    """Takes messages, or does not."""

    def __init__(self):
        self.answer = "ok"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say({
            "event": "message",
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "subject": message["Subject"],
            "auto_submitted": message["Auto-Submitted"],
            "text": message.get_content(),
        })
        if self.answer == "stall":
            await asyncio.Event().wait()
        return "250 OK" if self.answer == "ok" else "550 no"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.password == b"secret77"
    return AuthResult(success=good, auth_data=data)


async def main():
    key, cert, mode = sys.argv[1:4]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    handler = Handler()
    is_tls = mode == "starttls"

    def protocol():
        return SMTP(
            handler,
            hostname="localhost",
            enable_SMTPUTF8=True,
            tls_context=context if is_tls else None,
            require_starttls=is_tls,
            authenticator=authenticate if is_tls else None,
            auth_required=is_tls,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    say({"port": server.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # The end of stdin is the end of the test.
    while line := (await reader.readline()).decode().split():
        handler.answer = line[1]
        say({"event": "done", "command": line[0]})


asyncio.run(main())
