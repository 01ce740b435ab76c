// Made from /openapi.json by `npm run api`.
export const LIMITS = {
  "createEnvironment": {
    "name": {
      "maxLength": 200
    },
    "docker_image": {
      "maxLength": 500
    },
    "repos": {
      "maxItems": 100
    },
    "setup_commands": {
      "maxItems": 100
    },
    "env_vars": {
      "maxItems": 200
    },
    "env_vars.*": {
      "maxLength": 65536
    },
    "sandbox.network.allow": {
      "maxItems": 256
    },
    "sandbox.network.allow[]": {
      "maxLength": 260
    },
    "sandbox.limits.memory_mb": {
      "min": 16,
      "max": 16777216
    },
    "sandbox.limits.cpus": {
      "min": 0,
      "max": 4096
    },
    "sandbox.limits.pids": {
      "min": 16,
      "max": 4194304
    },
    "sandbox.limits.disk_mb": {
      "min": 16,
      "max": 16777216
    },
    "sandbox.limits.timeout_seconds": {
      "min": 1,
      "max": 2592000
    },
    "secrets": {
      "maxItems": 100
    },
    "secrets[]": {
      "maxLength": 65536
    },
    "scope": {
      "maxLength": 20
    }
  },
  "createSchedule": {
    "cron_schedule": {
      "maxLength": 200
    },
    "name": {
      "maxLength": 200
    },
    "prompt": {
      "maxLength": 1000000
    },
    "agent_config.name": {
      "maxLength": 200
    },
    "agent_config.model_id": {
      "maxLength": 200
    },
    "agent_config.base_prompt": {
      "maxLength": 100000
    },
    "agent_config.environment_id": {
      "maxLength": 200
    },
    "agent_config.skill_spec": {
      "maxLength": 200
    },
    "agent_config.mcp_servers": {
      "maxItems": 50
    },
    "agent_config.mcp_servers.*.command": {
      "maxLength": 4096
    },
    "agent_config.mcp_servers.*.args": {
      "maxItems": 200
    },
    "agent_config.mcp_servers.*.args[]": {
      "maxLength": 4096
    },
    "agent_config.mcp_servers.*.env": {
      "maxItems": 200
    },
    "agent_config.mcp_servers.*.env.*": {
      "maxLength": 65536
    },
    "agent_config.mcp_servers.*.url": {
      "maxLength": 2000
    },
    "agent_config.mcp_servers.*.headers": {
      "maxItems": 100
    },
    "agent_config.mcp_servers.*.headers.*": {
      "maxLength": 65536
    },
    "agent_config.mcp_servers.*.warp_id": {
      "maxLength": 200
    },
    "agent_config.worker_host": {
      "maxLength": 200
    }
  },
  "createKey": {
    "name": {
      "maxLength": 200
    },
    "tenant": {
      "maxLength": 200
    },
    "expires_in_days": {
      "min": 1,
      "max": 3650
    }
  },
  "createRunnerEnrolment": {
    "name": {
      "maxLength": 200
    },
    "uses": {
      "min": 1,
      "max": 1000
    },
    "expiresInSeconds": {
      "min": 60,
      "max": 31536000
    }
  },
  "createRun": {
    "prompt": {
      "maxLength": 1000000
    },
    "title": {
      "maxLength": 200
    },
    "skill": {
      "maxLength": 200
    },
    "conversation_id": {
      "maxLength": 200
    },
    "images": {
      "maxItems": 5
    },
    "config.name": {
      "maxLength": 200
    },
    "config.model_id": {
      "maxLength": 200
    },
    "config.base_prompt": {
      "maxLength": 100000
    },
    "config.environment_id": {
      "maxLength": 200
    },
    "config.skill_spec": {
      "maxLength": 200
    },
    "config.mcp_servers": {
      "maxItems": 50
    },
    "config.mcp_servers.*.command": {
      "maxLength": 4096
    },
    "config.mcp_servers.*.args": {
      "maxItems": 200
    },
    "config.mcp_servers.*.args[]": {
      "maxLength": 4096
    },
    "config.mcp_servers.*.env": {
      "maxItems": 200
    },
    "config.mcp_servers.*.env.*": {
      "maxLength": 65536
    },
    "config.mcp_servers.*.url": {
      "maxLength": 2000
    },
    "config.mcp_servers.*.headers": {
      "maxItems": 100
    },
    "config.mcp_servers.*.headers.*": {
      "maxLength": 65536
    },
    "config.mcp_servers.*.warp_id": {
      "maxLength": 200
    },
    "config.worker_host": {
      "maxLength": 200
    }
  }
} as const;
