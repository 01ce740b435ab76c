#include "proto/needs.h"

const struct mu_feature mu_features[MU_FEATURES] = {
    {"network:none", MU_NEED_NET_NONE},
    {"network:proxy", MU_NEED_NET_PROXY},
    {"network:host", MU_NEED_NET_HOST},
    {"nested", MU_NEED_NESTED},
    {"root:fake", MU_NEED_FAKE_ROOT},
    {"limits", MU_NEED_LIMITS},
    {"limits:disk", MU_NEED_DISK},
    {"limits:time", MU_NEED_TIME},
    {"live", MU_NEED_LIVE},
    {"harness:any", MU_NEED_HARNESSES},
};
