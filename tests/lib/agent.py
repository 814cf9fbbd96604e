"""A guest agent: a program of the tests that speaks the protocol of qemu-ga. Where the guest has the agent's channel, a
relay in it passes everything on to a second channel, whose end on the host is answered here."""

import json
import socket
import threading

from wait import until

# The agent's own channel, and the one to here.
RELAY = """
for port in /sys/class/virtio-ports/*; do
        [ "$(cat $port/name)" = org.qemu.guest_agent.0 ] && agent=/dev/${port##*/}
        [ "$(cat $port/name)" = org.virtbackupfs.relay.0 ] && relay=/dev/${port##*/}
done
setsid sh -c "echo \\$\\$ > /tmp/relay; exec 3<>$agent 4<>$relay
              while true; do cat <&3 >&4; sleep 0.1; done &
              while true; do cat <&4 >&3; sleep 0.1; done" < /dev/null > /dev/null 2>&1 &
"""


def channels(path):
    """For a VM's <devices>. path: of the relay's socket; the agent's lies beside it (libvirt's own choice may be too
    long)."""
    return (f"<channel type='unix'><source mode='bind' path='{path}.agent'/>"
            "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
            f"<channel type='unix'><source mode='bind' path='{path}'/>"
            "<target type='virtio' name='org.virtbackupfs.relay.0'/></channel>")


class Agent:
    """calls: the commands so far, without those that only synchronise. Those in mute get no answer, those in refused an
    error; on_call(command) is called before each answer."""

    def __init__(self, vm, path):
        self.calls, self.mute, self.refused, self.frozen = [], set(), set(), 0
        self.on_call = None
        self.vm = vm
        self.start()
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(path)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def start(self):
        self.vm.sh(RELAY)
        until(lambda: self.is_known(), "libvirt knows of the agent")

    def stop(self):
        """As an agent that ends, or a guest that does."""
        self.vm.sh("kill -9 -$(cat /tmp/relay)")
        until(lambda: not self.is_known(), "libvirt knows that the agent has gone")

    def is_known(self):
        return self.vm.live_xml().find("devices/channel/target[@name='org.qemu.guest_agent.0']").get("state") == "connected"

    def serve(self):
        received = b""
        while True:
            try:
                part = self.line.recv(65536)
            except OSError:
                return
            if not part:
                return
            received += part
            *lines, received = received.split(b"\n")
            for line in lines:
                self.take(line.replace(b"\xff", b""))

    def take(self, line):
        try:
            request = json.loads(line)
        except ValueError:
            return
        command = request["execute"]
        if command == "guest-sync":
            if "guest-sync" not in self.mute:
                self.say({"return": request["arguments"]["id"]})
            return
        self.calls.append(command)
        if self.on_call:
            self.on_call(command)
        if command in self.mute:
            return
        if command in self.refused:
            self.say({"error": {"class": "GenericError", "desc": f"{command} is refused here"}})
        else:
            self.say({"return": self.answer(command)})

    def answer(self, command):
        if command == "guest-fsfreeze-freeze":
            self.frozen = 2
            return 2
        if command == "guest-fsfreeze-thaw":
            thawed, self.frozen = self.frozen, 0
            return thawed
        if command == "guest-fsfreeze-status":
            return "frozen" if self.frozen else "thawed"
        if command == "guest-get-time":
            return 1_700_000_000_000_000_000
        return {}

    def say(self, answer):
        self.line.sendall(json.dumps(answer).encode() + b"\n")

    def close(self):
        self.line.close()


class ListeningAgent(Agent):
    """Answers at a socket itself: for a QEMU whose agent's channel would end there."""

    def __init__(self, path):
        self.calls, self.mute, self.refused, self.frozen = [], set(), set(), 0
        self.on_call = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                self.line, _ = self.listener.accept()
            except OSError:
                return
            self.line.sendall(b"{\"return\": 17}\n half of an answer to somebody else\n")
            self.serve()
            self.line.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
