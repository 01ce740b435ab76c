/** Tells what a run finds: the system, who it is, what lies there, which programs there are. Any POSIX shell runs it. */
export const TEST_SCRIPT = `echo "system:"
sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null
uname -srm
echo; echo "user and folder:"
id
pwd
ls -la
echo; echo "programs:"
for p in git node npm python3 gcc make cargo claude codex gemini opencode; do
  if command -v "$p" >/dev/null 2>&1; then printf '%s: ' "$p"; "$p" --version </dev/null 2>&1 | head -n 1; fi
done
echo; echo "done"
`;
