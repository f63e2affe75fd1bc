// The parts that deploy/kubernetes uses of the types of the Redis operator, which no package has: api/redisreplication/v1beta2,
// api/redissentinel/v1beta2 and api/common/v1beta2 of github.com/OT-CONTAINER-KIT/redis-operator, November 2026.
import type { IAffinity } from "kubernetes-models/v1/Affinity";
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import type { IEnvVarSource } from "kubernetes-models/v1/EnvVarSource";
import type { IPersistentVolumeClaim } from "kubernetes-models/v1/PersistentVolumeClaim";
import type { IPodSecurityContext } from "kubernetes-models/v1/PodSecurityContext";
import type { IResourceRequirements } from "kubernetes-models/v1/ResourceRequirements";
import type { ISecretVolumeSource } from "kubernetes-models/v1/SecretVolumeSource";
import type { ISecurityContext } from "kubernetes-models/v1/SecurityContext";

interface KubernetesConfig {
  image: string;
  imagePullPolicy?: "Always" | "IfNotPresent" | "Never";
  redisSecret?: { name?: string; key?: string };
  resources?: IResourceRequirements;
}

interface Common {
  clusterSize: number;
  kubernetesConfig: KubernetesConfig;
  pdb?: { enabled?: boolean; minAvailable?: number; maxUnavailable?: number };
  priorityClassName?: string;
  podSecurityContext?: IPodSecurityContext;
  securityContext?: ISecurityContext;
  affinity?: IAffinity;
  terminationGracePeriodSeconds?: number;
}

export interface RedisReplication {
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: Common & {
    acl?: { secret?: ISecretVolumeSource; persistentVolumeClaim?: string };
    redisConfig?: { maxMemoryPercentOfLimit?: number; dynamicConfig?: string[]; additionalRedisConfig?: string };
    redisExporter?: {
      enabled?: boolean;
      port?: number;
      image: string;
      imagePullPolicy?: "Always" | "IfNotPresent" | "Never";
      env?: IEnvVar[];
      resources?: IResourceRequirements;
      securityContext?: ISecurityContext;
    };
    storage?: { keepAfterDelete?: boolean; volumeClaimTemplate?: Partial<IPersistentVolumeClaim> };
  };
}

export interface RedisSentinel {
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: Common & {
    redisSentinelConfig?: {
      redisReplicationName: string;
      masterGroupName?: string;
      redisPort?: string;
      quorum?: string;
      parallelSyncs?: string;
      failoverTimeout?: string;
      downAfterMilliseconds?: string;
      resolveHostnames?: "yes" | "no";
      announceHostnames?: "yes" | "no";
      redisReplicationPassword?: IEnvVarSource;
    };
  };
}
