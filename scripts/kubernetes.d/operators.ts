// Types of two operators that no package has. They contain every field of the specifications, not only those that deploy/kubernetes
// uses, and were compared with the projects' sources in November 2026:
//
// - OT-CONTAINER-KIT/redis-operator, v1beta2: api/common (commit 0033bbf4), api/redisreplication (00165cb4), api/redissentinel (0ec36f47)
// - cloudnative-pg/plugin-barman-cloud 0.16, v1: the API reference
import type { IAffinity } from "kubernetes-models/v1/Affinity";
import type { IContainerPort } from "kubernetes-models/v1/ContainerPort";
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import type { IEnvVarSource } from "kubernetes-models/v1/EnvVarSource";
import type { ILocalObjectReference } from "kubernetes-models/v1/LocalObjectReference";
import type { IPersistentVolumeClaim } from "kubernetes-models/v1/PersistentVolumeClaim";
import type { IPodSecurityContext } from "kubernetes-models/v1/PodSecurityContext";
import type { IProbe } from "kubernetes-models/v1/Probe";
import type { IResourceRequirements } from "kubernetes-models/v1/ResourceRequirements";
import type { ISecretVolumeSource } from "kubernetes-models/v1/SecretVolumeSource";
import type { ISecurityContext } from "kubernetes-models/v1/SecurityContext";
import type { IToleration } from "kubernetes-models/v1/Toleration";
import type { ITopologySpreadConstraint } from "kubernetes-models/v1/TopologySpreadConstraint";
import type { IVolume } from "kubernetes-models/v1/Volume";
import type { IVolumeMount } from "kubernetes-models/v1/VolumeMount";
import type { IStatefulSetPersistentVolumeClaimRetentionPolicy } from "kubernetes-models/apps/v1/StatefulSetPersistentVolumeClaimRetentionPolicy";
import type { IStatefulSetUpdateStrategy } from "kubernetes-models/apps/v1/StatefulSetUpdateStrategy";
import type { IObjectMeta } from "@kubernetes-models/apimachinery/apis/meta/v1/ObjectMeta";
import type { ClusterProps, ClusterSpecBackupBarmanObjectStore, ScheduledBackupProps } from "./postgresql.cnpg.io";

type PullPolicy = "Always" | "IfNotPresent" | "Never";

interface Service {
  type?: "LoadBalancer" | "NodePort" | "ClusterIP";
  additionalAnnotations?: Record<string, string>;
  includeBusPort?: boolean;
  enabled?: boolean;
}

interface KubernetesConfig {
  image: string;
  imagePullPolicy?: PullPolicy;
  resources?: IResourceRequirements;
  redisSecret?: { name?: string; key?: string };
  imagePullSecrets?: ILocalObjectReference[];
  updateStrategy?: IStatefulSetUpdateStrategy;
  persistentVolumeClaimRetentionPolicy?: IStatefulSetPersistentVolumeClaimRetentionPolicy;
  service?: {
    serviceType?: "LoadBalancer" | "NodePort" | "ClusterIP";
    annotations?: Record<string, string>;
    includeBusPort?: boolean;
    headless?: Service;
    additional?: Service;
  };
  ignoreAnnotations?: string[];
  minReadySeconds?: number;
}

interface AdditionalVolume {
  volume?: IVolume[];
  mountPath?: IVolumeMount[];
}

// The fields of a container of the operator's pods, besides its name.
interface Container {
  image: string;
  imagePullPolicy?: PullPolicy;
  resources?: IResourceRequirements;
  env?: IEnvVar[];
  securityContext?: ISecurityContext;
}

interface Common {
  clusterSize: number;
  kubernetesConfig: KubernetesConfig;
  redisExporter?: Container & { enabled?: boolean; port?: number };
  nodeSelector?: Record<string, string>;
  podSecurityContext?: IPodSecurityContext;
  securityContext?: ISecurityContext;
  priorityClassName?: string;
  affinity?: IAffinity;
  tolerations?: IToleration[];
  TLS?: { ca?: string; cert?: string; key?: string; secret: ISecretVolumeSource };
  pdb?: { enabled?: boolean; minAvailable?: number; maxUnavailable?: number };
  readinessProbe?: IProbe;
  livenessProbe?: IProbe;
  initContainer?: Container & { enabled?: boolean; command?: string[]; args?: string[] };
  sidecars?: (Container & { name: string; mountPath?: IVolumeMount[]; command?: string[]; ports?: IContainerPort[] })[];
  serviceAccountName?: string;
  terminationGracePeriodSeconds?: number;
  env?: IEnvVar[];
  topologySpreadConstraints?: ITopologySpreadConstraint[];
  hostPort?: number;
}

export interface RedisReplication {
  apiVersion: "redis.redis.opstreelabs.in/v1beta2";
  kind: "RedisReplication";
  metadata: IObjectMeta;
  spec: Common & {
    redisConfig?: { maxMemoryPercentOfLimit?: number; dynamicConfig?: string[]; additionalRedisConfig?: string };
    storage?: { keepAfterDelete?: boolean; volumeClaimTemplate?: Partial<IPersistentVolumeClaim>; volumeMount?: AdditionalVolume };
    acl?: { secret?: ISecretVolumeSource; persistentVolumeClaim?: string };
  };
}

export interface RedisSentinel {
  apiVersion: "redis.redis.opstreelabs.in/v1beta2";
  kind: "RedisSentinel";
  metadata: IObjectMeta;
  spec: Common & {
    redisSentinelConfig?: {
      redisReplicationName: string;
      masterGroupName?: string;
      redisPort?: string;
      redisReplicationPassword?: IEnvVarSource;
      additionalSentinelConfig?: string;
      quorum?: string;
      parallelSyncs?: string;
      failoverTimeout?: string;
      downAfterMilliseconds?: string;
      resolveHostnames?: "yes" | "no";
      announceHostnames?: "yes" | "no";
    };
    volumeMount?: AdditionalVolume;
  };
}

// CloudNativePG's types, from its package, with what cdk8s leaves out.
export type Cluster = ClusterProps & { apiVersion: "postgresql.cnpg.io/v1"; kind: "Cluster" };
export type ScheduledBackup = ScheduledBackupProps & { apiVersion: "postgresql.cnpg.io/v1"; kind: "ScheduledBackup" };

export interface ObjectStore {
  apiVersion: "barmancloud.cnpg.io/v1";
  kind: "ObjectStore";
  metadata: IObjectMeta;
  spec: {
    // The form of the store within a Cluster, which the plugin replaced.
    configuration: ClusterSpecBackupBarmanObjectStore;
    retentionPolicy?: string;
    instanceSidecarConfiguration?: {
      env?: IEnvVar[];
      retentionPolicyIntervalSeconds?: number;
      resources?: IResourceRequirements;
      additionalContainerArgs?: string[];
      logLevel?: "error" | "warning" | "info" | "debug" | "trace";
    };
  };
}
