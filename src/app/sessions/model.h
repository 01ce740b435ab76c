/* The session's words: states, outcomes, reasons, sources, events (data-model.md 2, architecture.md
 * 2). The numbers are stored. */
#ifndef MU_APP_SESSIONS_MODEL_H
#define MU_APP_SESSIONS_MODEL_H

#include "base/bytes.h"

/* Literals, because a predicate that a partial index must match may not hold a parameter: SQL texts
 * paste MU_SQL(MU_ST_…). */
#define MU_ST_QUEUED        20 /* for the provider route */
#define MU_ST_QUEUED_WORKER 22
#define MU_ST_CLAIMED       30 /* offered to a worker */
#define MU_ST_PREPARING     40
#define MU_ST_STARTING      50
#define MU_ST_RUNNING       60
#define MU_ST_WAITING       64 /* for a gate */
#define MU_ST_WAITING_AWAY  66 /* the same, and it holds no worker meanwhile */
#define MU_ST_PAUSED        70
#define MU_ST_HIBERNATING   72 /* a snapshot is being taken */
#define MU_ST_HIBERNATED    74 /* holds no worker */
#define MU_ST_PARKED        76 /* its sandbox is gone, but can be restored */
#define MU_ST_STOPPING      80
#define MU_ST_COMPLETED     90
#define MU_ST_FAILED        92
#define MU_ST_TIMED_OUT     94
#define MU_SQL_(n)          #n
#define MU_SQL(n)           MU_SQL_(n)

enum mu_outcome { MU_OUT_LIVE, MU_OUT_FINISHED, MU_OUT_CANCELLED, MU_OUT_FAILED, MU_OUT_TIMED_OUT };

/* Who asked for a session. Each API shows its own; 0 in an operation means the first. */
enum mu_view {
    MU_VIEW_OZ = 1,
    MU_VIEW_VILLAGE,
    MU_VIEW_AGENT_OPS,
    MU_VIEW_WORKSPACE,
    MU_VIEW_NATIVE
};
/* A task ends with its one prompt; an interactive session takes turns. */
enum mu_mode { MU_MODE_TASK = 1, MU_MODE_INTERACTIVE };

enum mu_end_reason {
    MU_END_NONE,
    MU_END_FINISHED,
    MU_END_STOPPED,
    MU_END_DENIED,
    MU_END_PROVIDER_ERROR,
    MU_END_WORKSPACE_ERROR,
    MU_END_POLICY,
    MU_END_TIMEOUT,
    MU_END_QUEUE_TIMEOUT,
    MU_END_RUNNER_LOST,
    MU_END_INTERNAL,
    MU_END_SATURATED,
    MU_END_INTERRUPTED,
};
/* The words of the stored events and of the APIs ("stopped"); NULL for MU_END_NONE. */
const char *mu_end_reason_name(int reason);

enum mu_source {
    MU_SRC_LOCAL = 1,
    MU_SRC_API,
    MU_SRC_LINEAR,
    MU_SRC_SLACK,
    MU_SRC_SCHEDULED_AGENT,
    MU_SRC_WEB_APP,
    MU_SRC_GITHUB_ACTION,
    MU_SRC_CLOUD_MODE,
    MU_SRC_CLI,
};

/* A source by its word (SCHEDULED_AGENT) and back; 0 and NULL for what is none. */
int mu_source_parse(mu_bytes word);
const char *mu_source_name(int source);

enum mu_route_kind { MU_ROUTE_PROVIDER = 1, MU_ROUTE_WORKER = 2 };
enum mu_artifact_kind { MU_ARTIFACT_PR = 1, MU_ARTIFACT_PLAN = 2 };
enum mu_attempt_outcome {
    MU_ATT_FINISHED = 1,
    MU_ATT_FAILED,
    MU_ATT_LOST,
    MU_ATT_REJECTED,
    MU_ATT_STOPPED,
    MU_ATT_UNCONFIRMED,
    MU_ATT_PUT_BACK
};

enum mu_event_type {
#define MU_EVENT(number, name, oz, village) MU_EV_##name = number,
#include "app/sessions/events.def"
#undef MU_EVENT
    MU_EV_FACTS = 20, /* from here on they are what runners report */
    /* never stored: they travel by the feed alone (db/feed.h), with seq 0 */
    MU_EV_DELTA = 100, /* a piece of output; offset and epoch set */
    MU_EV_DELTA_RESET, /* the attempt's text so far is discarded; the next delta starts at 0 */
    MU_EV_TEXT,        /* the agent's text as it streams */
    MU_EV_TERMINAL,    /* a piece of a terminal; offset set */
    MU_EV_CONTROL,     /* who alone types from now on: a uid, or "" */
};
/* What who watches an org hears of (struct mu_writer_opts): its sessions' states and gates, its
 * workers. */
#define MU_EVENT_BIT(type) (UINT64_C(1) << (type))
#define MU_ORG_EVENTS                                                                              \
    (MU_EVENT_BIT(MU_EV_CREATED) | MU_EVENT_BIT(MU_EV_STATE) |                                     \
     MU_EVENT_BIT(MU_EV_APPROVAL_REQUESTED) | MU_EVENT_BIT(MU_EV_APPROVAL_RESOLVED) |              \
     MU_EVENT_BIT(MU_EV_RUNNER_REGISTERED) | MU_EVENT_BIT(MU_EV_RUNNER_ONLINE) |                   \
     MU_EVENT_BIT(MU_EV_RUNNER_OFFLINE) | MU_EVENT_BIT(MU_EV_RUNNER_DRAINING) |                    \
     MU_EVENT_BIT(MU_EV_RUNNER_DRAINED) | MU_EVENT_BIT(MU_EV_RUNNER_UNDRAINED) |                   \
     MU_EVENT_BIT(MU_EV_RUNNER_DEREGISTERED))

/* A stored event's number by its village name and back; 0 and NULL for what is none. */
int mu_event_type_parse(mu_bytes word);
const char *mu_event_type_name(int type);

/* Its execution was ended, and it goes on when somebody wakes it. */
static inline bool mu_state_sleeps(int state)
{
    return state == MU_ST_WAITING_AWAY || state == MU_ST_HIBERNATED || state == MU_ST_PARKED;
}

/* The lifecycle as a table (architecture.md 5 G2): whether a session may go from one stored state
 * to another. The SQL texts say the same in their predicates; a test compares both. */
bool mu_state_may_move(int from, int to);

#endif
