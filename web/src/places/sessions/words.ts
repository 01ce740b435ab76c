const QUEUE: Record<string, string> = {
  no_online_runner: "No worker is connected. It begins by itself when one is.",
  provider_unavailable: "No connected worker has this agent. It begins by itself when one has.",
  feature_unavailable: "No connected worker can do what it asks for.",
  at_capacity: "Every worker is full. It begins when a slot is free.",
  pinned_runner_offline: "The worker it is bound to is not connected.",
  build_unavailable: "No connected worker has the build it asks for.",
};
export const queueText = (reason: string) => QUEUE[reason] ?? reason.replaceAll("_", " ");

const END: Record<string, string> = {
  finished: "Finished",
  stopped: "Stopped by a person",
  denied: "Stopped because a gate was denied",
  provider_error: "The agent failed",
  workspace_error: "The workspace could not be made",
  policy: "Against the policy",
  timeout: "Ran out of time",
  queue_timeout: "Waited too long for a worker",
  runner_lost: "Its worker was lost",
  internal: "An internal error",
};
export const endText = (reason: string) => END[reason] ?? reason.replaceAll("_", " ");
