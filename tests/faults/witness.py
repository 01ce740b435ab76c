"""Sees from outside what is executed: every task connects to a unix socket that its sandbox sees in a read-only folder
(OZ_SANDBOX_RO), says who it is and that it started, later that it ends, and is answered each time. The connection lives as
long as anything of that execution does, so its end is the moment at which nothing of it was left."""
import os
import pathlib
import socket
import struct
import threading
import time

# What a task is: told by the words of its prompt. Everything that it leaves running holds the connection too.
TASK = r"""
use strict; use warnings; use IO::Socket::UNIX; use Time::HiRes qw(sleep);
my %a = map { split /=/, $_, 2 } @ARGV;
$| = 1;
my $name = sprintf "%d-%08x", $$, int rand 4294967295;
my ($dir) = $0 =~ m{(.*)/};
my $s = IO::Socket::UNIX->new(Peer => "$dir/socket") or do { print "no witness: $!\n"; exit 71 };
sub tell_it {
  print $s "$_[0] $ENV{OZ_RUN_ID} $ENV{OZ_EXECUTION_ID} $name\n";
  defined(my $answer = <$s>) or do { print "the witness is gone\n"; exit 72 };
}
tell_it("start");
print "begin $name\n";
if ($a{daemon} && fork == 0) {
  require POSIX; POSIX::setsid(); close STDOUT; close STDERR;
  sleep 1000; exit 0;
}
print "line $_ of $name\n" for 1 .. $a{lines};
sleep $a{sleep};
tell_it("end");
print "end $name\n";
exit $a{status};
"""


class Execution:
    """One start of one task's program."""

    def __init__(self, worker, pid, run_id, execution_id, name, started):
        self.worker, self.pid = worker, pid  # the latter as this machine counts
        self.run_id, self.execution_id, self.name, self.started = run_id, execution_id, name, started
        self.ended = None  # it said that it is done
        self.gone = None   # nothing of it is left


class Witness:
    def __init__(self, folder, workers):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(mode=0o755)
        self.lock = threading.Lock()
        self.executions, self.bad = [], []
        self.closing, self.sockets = False, []
        for worker in workers:  # each sees its own folder, and tasks whatever is there
            place = self.folder(worker)
            place.mkdir()
            (place / "task.pl").write_text(TASK)
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(place / "socket"))
            os.chmod(place / "socket", 0o666)
            sock.listen(256)
            self.sockets.append(sock)
            threading.Thread(target=self._accept, args=(sock, worker), daemon=True).start()

    def folder(self, worker):
        return self.dir / worker

    def prompt(self, seconds, lines=0, daemon=False, status=0):
        return (f"exec perl {self.dir}/*/task.pl sleep={seconds:.3f} lines={lines} daemon={int(daemon)} "
                f"status={status}")

    @staticmethod
    def output(name, lines):
        return "".join([f"begin {name}\n", *(f"line {i} of {name}\n" for i in range(1, lines + 1)), f"end {name}\n"])

    def live(self):
        with self.lock:
            return [e for e in self.executions if e.gone is None]

    def _accept(self, listener, worker):
        while not self.closing:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock, worker), daemon=True).start()

    def _serve(self, sock, worker):
        execution = None
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with sock, sock.makefile("rb") as stream:
            try:
                for raw in stream:
                    now, words = time.time(), raw.decode().split()
                    with self.lock:
                        if words[0] == "start" and execution is None and len(words) == 4:
                            execution = Execution(worker, pid, *words[1:], now)
                            self.executions.append(execution)
                        elif words[0] == "end" and execution and execution.ended is None:
                            execution.ended = now
                        else:
                            self.bad.append(raw.decode())
                    sock.sendall(b"ok\n")
            except OSError:
                pass  # it was killed
        if execution:
            execution.gone = time.time()

    def stop(self):
        self.closing = True
        for sock in self.sockets:
            sock.close()
