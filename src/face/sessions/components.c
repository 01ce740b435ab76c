/* Component schemas of openapi.json: the data of this face's answers. */
#include "face/sessions/sessions.h"

#define STR     "{\"type\":\"string\"}"
#define TIME    "{\"type\":\"string\",\"format\":\"date-time\"}"
#define INT     "{\"type\":\"integer\"}"
#define BOOL    "{\"type\":\"boolean\"}"
#define OBJ     "{\"type\":\"object\"}"
#define REF(n)  "{\"$ref\":\"#/components/schemas/" n "\"}"
#define LIST(n) "{\"type\":\"array\",\"items\":" n "}"
#define STATE                                                                                      \
    "{\"type\":\"string\",\"enum\":[\"CREATED\",\"QUEUED\",\"PREPARING_WORKSPACE\","               \
    "\"STARTING_PROVIDER\",\"RUNNING\",\"WAITING_FOR_APPROVAL\",\"PAUSED_BY_HUMAN\","              \
    "\"STOPPING\",\"COMPLETED\",\"FAILED\",\"TIMED_OUT\"]}"
#define SUMMARY_REQUIRED                                                                           \
    "\"sessionId\",\"orgId\",\"state\",\"providerId\",\"repoUrl\",\"startedAt\",\"createdAt\","    \
    "\"durationSeconds\",\"taskSummary\",\"mode\",\"updatedAt\",\"rev\""
#define SUMMARY                                                                                    \
    "\"sessionId\":" STR ",\"orgId\":" STR ",\"state\":" STATE ",\"providerId\":" STR              \
    ",\"repoUrl\":" STR ",\"startedAt\":" TIME ",\"createdAt\":" TIME ",\"runStartedAt\":" TIME    \
    ",\"completedAt\":" TIME ",\"durationSeconds\":" INT ",\"taskSummary\":" STR ",\"mode\":" STR  \
    ",\"hibernated\":" BOOL ",\"parked\":" BOOL ",\"updatedAt\":" TIME ",\"rev\":" INT

const char *const mu_sess_components[] = {
    "SessionSummary",
    "{\"type\":\"object\",\"required\":[" SUMMARY_REQUIRED "],\"properties\":{" SUMMARY "}}",
    "SessionDetail",
    "{\"type\":\"object\",\"required\":[" SUMMARY_REQUIRED
    ",\"usage\",\"recentEvents\",\"pendingApprovals\",\"artifacts\",\"lastEventSeq\",\"attempt\","
    "\"createdBy\"],\"properties\":{" SUMMARY
    ",\"repo\":{\"type\":\"object\",\"properties\":{\"url\":" STR ",\"branch\":" STR
    ",\"commit\":" STR ",\"tag\":" STR "}},\"workspace\":" OBJ
    ",\"usage\":{\"type\":\"object\",\"required\":[\"tokensIn\",\"tokensOut\",\"apiCalls\","
    "\"computeSeconds\"],\"properties\":{\"tokensIn\":" INT ",\"tokensOut\":" INT
    ",\"apiCalls\":" INT ",\"computeSeconds\":" INT "}},\"recentEvents\":" LIST(
        "{\"type\":\"object\",\"required\":[\"type\",\"timestamp\",\"summary\"],\"properties\":{"
        "\"type\":" STR ",\"timestamp\":" TIME ",\"summary\":" STR
        "}}") ",\"pendingApprovals\":" LIST(REF("Approval")) ",\"runnerId\":" STR
                                                             ",\"runnerName\":" STR
                                                             ",\"runnerUnreachable\":" BOOL
                                                             ",\"queueReason\":" STR
                                                             ",\"endReason\":" STR
                                                             ",\"exitCode\":" INT
                                                             ",\"errorMessage\":" STR
                                                             ",\"diff\":{\"type\":\"object\","
                                                             "\"properties\":{\"filesChanged\":" INT
                                                             ",\"linesAdded\":" INT
                                                             ",\"linesRemoved\":" INT
                                                             "}},\"artifacts\":{\"type\":\"array\"}"
                                                             ",\"deadlineAt\":" TIME
                                                             ",\"pausedAt\":" TIME
                                                             ",\"timeoutMinutes\":" INT
                                                             ",\"lastEventSeq\":" INT
                                                             ",\"attempt\":" INT
                                                             ",\"createdBy\":" STR
                                                             ",\"metadata\":" OBJ ",\"model\":" STR
                                                             ",\"environmentId\":" STR
                                                             ",\"parentSessionId\":" STR "}}",
    "SessionList",
    "{\"type\":\"object\",\"required\":[\"items\",\"total\",\"page\",\"pageSize\",\"hasMore\"],"
    "\"properties\":{\"items\":" LIST(REF(
        "SessionSummary")) ",\"total\":" INT ",\"totalIsLowerBound\":" BOOL ",\"page\":" INT
                           ",\"pageSize\":" INT ",\"hasMore\":" BOOL ",\"nextCursor\":" STR "}}",
    "SessionEvent",
    "{\"type\":\"object\",\"required\":[\"seq\",\"type\",\"timestamp\",\"data\"],\"properties\":{"
    "\"seq\":" INT ",\"type\":" STR ",\"timestamp\":" TIME
    ",\"actor\":{\"type\":\"object\",\"required\":[\"type\",\"id\"],\"properties\":{\"type\":" STR
    ",\"id\":" STR "}},\"data\":" OBJ "}}",
    "SessionEvents",
    "{\"type\":\"object\",\"required\":[\"events\",\"nextSeq\",\"firstSeq\",\"lastSeq\","
    "\"hasMore\"],\"properties\":{\"events\":" LIST(REF("SessionEvent")) ",\"nextSeq\":" INT
                                                                         ",\"firstSeq\":" INT
                                                                         ",\"lastSeq\":" INT
                                                                         ",\"hasMore\":" BOOL "}}",
    "SessionDiff",
    "{\"type\":\"object\",\"required\":[\"filesChanged\",\"linesAdded\",\"linesRemoved\","
    "\"files\"],\"properties\":{\"filesChanged\":" INT ",\"linesAdded\":" INT
    ",\"linesRemoved\":" INT
    ",\"files\":" LIST("{\"type\":\"object\",\"properties\":{\"path\":" STR ",\"status\":" STR
                       ",\"additions\":" INT ",\"deletions\":" INT ",\"oldPath\":" STR
                       "}}") ",\"patch\":" STR ",\"truncated\":" BOOL "}}",
    "SessionArtifacts",
    "{\"type\":\"object\",\"required\":[\"artifacts\"],\"properties\":{\"artifacts\":" LIST(
        OBJ) "}}",
    "Approval",
    "{\"type\":\"object\",\"required\":[\"approvalId\",\"status\"],\"properties\":{"
    "\"approvalId\":" STR ",\"sessionId\":" STR ",\"orgId\":" STR ",\"kind\":" STR
    ",\"action\":" STR ",\"description\":" STR ",\"risk\":" STR ",\"status\":" STR
    ",\"requestedAt\":" TIME ",\"expiresAt\":" TIME ",\"context\":" OBJ ",\"requestKey\":" STR
    ",\"turnId\":" STR ",\"votesNeeded\":" INT ",\"decision\":" STR ",\"scope\":" STR
    ",\"reason\":" STR ",\"resolvedBy\":" STR ",\"resolvedAt\":" TIME "}}",
    "ApprovalLink",
    "{\"type\":\"object\",\"required\":[\"approvalId\",\"linkId\",\"url\",\"expiresAt\"],"
    "\"properties\":{\"approvalId\":" STR ",\"linkId\":" STR ",\"url\":" STR ",\"label\":" STR
    ",\"decisions\":" LIST(STR) ",\"expiresAt\":" TIME "}}",
    "ApprovalLinkView",
    "{\"type\":\"object\",\"required\":[\"status\",\"action\",\"risk\",\"description\"],"
    "\"properties\":{\"status\":" STR ",\"action\":" STR ",\"risk\":" STR ",\"description\":" STR
    ",\"context\":" OBJ ",\"session_id\":" STR ",\"session_title\":" STR ",\"asked_by\":" STR
    ",\"asked_at\":" TIME ",\"expires_at\":" TIME ",\"label\":" STR
    ",\"decisions\":" LIST(STR) ",\"request_id\":" STR "}}",
    "ApprovalLinkUsed",
    "{\"type\":\"object\",\"required\":[\"status\",\"decision\"],\"properties\":{"
    "\"status\":" STR ",\"decision\":" STR ",\"request_id\":" STR "}}",
    "ApprovalList",
    "{\"type\":\"object\",\"required\":[\"items\",\"pageSize\",\"hasMore\"],\"properties\":{"
    "\"items\":" LIST(REF("Approval")) ",\"pageSize\":" INT ",\"hasMore\":" BOOL
                                       ",\"nextCursor\":" STR "}}",
    "Accepted",
    "{\"type\":\"object\",\"required\":[\"accepted\"],\"properties\":{\"accepted\":" BOOL
    ",\"bytes\":" INT ",\"cols\":" INT ",\"rows\":" INT ",\"terminal\":" INT "}}",
    "PromptQueued",
    "{\"type\":\"object\",\"required\":[\"promptId\",\"sessionId\",\"state\",\"position\","
    "\"ahead\"],\"properties\":{\"promptId\":" STR ",\"sessionId\":" STR ",\"state\":" STR
    ",\"position\":" INT ",\"ahead\":" INT "}}",
    "PromptState",
    "{\"type\":\"object\",\"required\":[\"promptId\",\"state\"],\"properties\":{\"promptId\":" STR
    ",\"state\":" STR "}}",
    "PromptList",
    "{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{\"items\":" LIST(
        "{\"type\":\"object\",\"required\":[\"promptId\",\"state\",\"position\",\"prompt\","
        "\"createdAt\"],\"properties\":{\"promptId\":" STR ",\"state\":" STR ",\"position\":" INT
        ",\"prompt\":" STR ",\"createdBy\":" STR ",\"createdAt\":" TIME ",\"startedAt\":" TIME
        ",\"endedAt\":" TIME ",\"attempt\":" INT "}}") "}}",
    "CheckpointList",
    "{\"type\":\"object\",\"required\":[\"items\",\"hasMore\"],\"properties\":{\"items\":" LIST(
        "{\"type\":\"object\",\"required\":[\"id\",\"number\",\"bytes\",\"createdAt\"],"
        "\"properties\":{\"id\":" STR ",\"number\":" INT ",\"turnId\":" STR ",\"bytes\":" INT
        ",\"createdAt\":" TIME ",\"inherited\":" BOOL "}}") ",\"hasMore\":" BOOL "}}",
    "OwnOrg",
    "{\"type\":\"object\",\"required\":[\"orgId\",\"role\",\"limits\"],\"properties\":{"
    "\"orgId\":" STR ",\"role\":" STR ",\"limits\":" OBJ "}}",
    NULL};
