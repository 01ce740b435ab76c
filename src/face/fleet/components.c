/* Component schemas of openapi.json: the data of this face's answers. */
#include "face/fleet/fleet.h"

#define STR  "{\"type\":\"string\"}"
#define TIME "{\"type\":\"string\",\"format\":\"date-time\"}"
#define INT  "{\"type\":\"integer\"}"
#define BOOL "{\"type\":\"boolean\"}"
#define OBJ  "{\"type\":\"object\"}"
#define STRS "{\"type\":\"array\",\"items\":" STR "}"
#define INFO                                                                                       \
    "\"runnerId\":" STR ",\"hostname\":" STR ",\"orgId\":" STR ",\"status\":{\"type\":\"string\"," \
    "\"enum\":[\"online\",\"offline\",\"draining\",\"maintenance\"]},\"connected\":" BOOL          \
    ",\"lastHeartbeat\":" TIME ",\"registeredAt\":" TIME ",\"drainRequestedAt\":" TIME             \
    ",\"drained\":" BOOL ",\"capabilities\":" OBJ ",\"load\":" OBJ ",\"activeSessionIds\":" STRS   \
    ",\"runtimeVersions\":" OBJ ",\"metadata\":" OBJ ",\"version\":" STR ",\"buildId\":" STR
#define INFO_REQUIRED                                                                              \
    "\"runnerId\",\"hostname\",\"status\",\"connected\",\"registeredAt\",\"drained\","             \
    "\"capabilities\",\"load\",\"activeSessionIds\",\"runtimeVersions\",\"metadata\",\"version\""

const char *const mu_fleet_components[] = {
    "RunnerInfo",
    "{\"type\":\"object\",\"required\":[" INFO_REQUIRED "],\"properties\":{" INFO "}}",
    "RunnerRegistered",
    "{\"type\":\"object\",\"required\":[" INFO_REQUIRED "],\"properties\":{" INFO
    ",\"runnerToken\":" STR ",\"heartbeatIntervalMs\":" INT ",\"linkUrl\":" STR "}}",
    "RunnerList",
    "{\"type\":\"object\",\"required\":[\"items\",\"total\",\"page\",\"pageSize\",\"hasMore\"],"
    "\"properties\":{\"items\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/"
    "RunnerInfo\"}},\"total\":" INT ",\"page\":" INT ",\"pageSize\":" INT ",\"hasMore\":" BOOL
    ",\"nextCursor\":" STR "}}",
    "RunnerCapacity",
    "{\"type\":\"object\",\"required\":[\"total\",\"used\",\"available\",\"draining\"],"
    "\"properties\":{\"total\":" INT ",\"used\":" INT ",\"available\":" INT ",\"draining\":" INT
    ",\"onlineRunners\":" INT ",\"unlimited\":" BOOL "}}",
    "RunnerEvents",
    "{\"type\":\"object\",\"required\":[\"events\",\"nextSeq\",\"firstSeq\",\"lastSeq\","
    "\"hasMore\"],\"properties\":{\"events\":{\"type\":\"array\",\"items\":" OBJ
    "},\"nextSeq\":" INT ",\"firstSeq\":" INT ",\"lastSeq\":" INT ",\"hasMore\":" BOOL "}}",
    "RunnerHeartbeatAnswer",
    "{\"type\":\"object\",\"required\":[\"serverTime\",\"drain\",\"commands\"],\"properties\":{"
    "\"serverTime\":" TIME ",\"drain\":" BOOL ",\"commands\":{\"type\":\"array\"}}}",
    "RunnerEnrolment",
    "{\"type\":\"object\",\"required\":[\"enrolmentId\",\"token\",\"uses\"],\"properties\":{"
    "\"enrolmentId\":" STR ",\"token\":" STR ",\"orgId\":" STR ",\"uses\":" INT
    ",\"expiresAt\":" TIME "}}",
    "RunnerEnrolmentList",
    "{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{\"items\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\",\"required\":[\"enrolmentId\",\"name\",\"prefix\",\"shared\","
    "\"status\",\"usesLeft\",\"createdAt\"],\"properties\":{\"enrolmentId\":" STR ",\"name\":" STR
    ",\"prefix\":" STR ",\"orgId\":" STR ",\"shared\":" BOOL ",\"status\":" STR ",\"usesLeft\":" INT
    ",\"createdAt\":" TIME ",\"expiresAt\":" TIME ",\"lastUsedAt\":" TIME ",\"revokedAt\":" TIME
    "}}}}}",
    "RunnerEnrolmentRevoked",
    "{\"type\":\"object\",\"required\":[\"enrolmentId\",\"status\"],\"properties\":{"
    "\"enrolmentId\":" STR ",\"status\":" STR "}}",
    NULL};
