export default function Panel(_: import("./session").TabProps & { shownNow: boolean }) { return null; }
